# syntax=docker/dockerfile:1
# fleet as an image, for apps to build on: docker build -t fleet .
# An app's own image: FROM this one, its requirements and its code below /app; examples/07-kubernetes/Dockerfile shows it.
# Another base, such as a mirror's: docker build --build-arg PYTHON_IMAGE=registry.example/python:3.13-slim .
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE} AS build
RUN pip install --no-cache-dir uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY fleet ./fleet
COPY pools ./pools
RUN uv venv /opt/fleet && uv pip install --python /opt/fleet/bin/python --constraint constraints.txt '.[celery,kubernetes]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/fleet /opt/fleet
# The number, not the name: a cluster that wants no root can then see that this is none.
RUN useradd --uid 10001 --create-home --home-dir /home/fleet fleet && install -d -o 10001 -g 10001 /app /run/fleet
ENV PATH=/opt/fleet/bin:$PATH PYTHONUNBUFFERED=1 FLEET_HOME=/run/fleet
USER 10001
WORKDIR /app
# `docker run IMAGE run fleet.yaml`, `docker run IMAGE worker --app shop:app`; pods name their own command.
# A worker by hand keeps no record: run that one with --no-healthcheck.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["fleet", "health", "--probe", "live"]
ENTRYPOINT ["fleet"]
CMD ["run", "/app/fleet.yaml"]
