"""dashboard: web pages of one fleet, or of all fleets of this host."""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import signal
import threading
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from fleet.cli.output import Output, clock
from fleet.cli.target import fleet_of, no_names, target_flags, target_of
from fleet.core.text.listen import ListenAddress, is_loopback, listen_address
from fleet.errors import FleetError, Refused, UsageError
from fleet.state.audit import who

if TYPE_CHECKING:
    from fleet.operate.dashboard.access import Policy, Token
    from fleet.operate.dashboard.serving import Tls

DEFAULT = "127.0.0.1:9810"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def dashboard_flags(parser: argparse.ArgumentParser) -> None:
    target_flags(parser)
    parser.add_argument(
        "--listen",
        type=_address,
        default=listen_address(DEFAULT),
        metavar="ADDRESS",
        help=f"where: host and port, or unix:/PATH (default {DEFAULT})",
    )
    parser.add_argument(
        "--allow-actions", action="store_true", help="let pages scale, drain, resume, pause, restart and roll back"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="who may come: lines of NAME TOKEN, mode 0600")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="and this key")
    parser.add_argument("--trust-header", metavar="NAME", help="a proxy says in this header who asks")
    parser.add_argument(
        "--proxy",
        action="append",
        type=_ip,
        metavar="IP",
        default=[],
        help="with --trust-header: where the proxy asks from",
    )
    parser.add_argument(
        "--host-name", action="append", metavar="NAME", default=[], help="a name that browsers know this server by"
    )
    parser.add_argument(
        "--socket-group", metavar="GROUP", default="", help="with unix: accounts of this group may connect too"
    )


def _address(text: str) -> ListenAddress:
    try:
        return listen_address(text, anywhere=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _ip(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address: {text!r}; write it like 10.0.0.7") from None


def dashboard(args: argparse.Namespace, out: Output) -> int:
    """Serve pages until INT or TERM."""
    _check(args)
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        hint = "pip install 'workerfleet[dashboard]'"
        raise FleetError(f"the dashboard needs {' and '.join(missing)}, and they are not installed", hint=hint)
    from fleet import settings
    from fleet.operate.dashboard.app import Dashboard
    from fleet.operate.dashboard.serving import DashboardServer

    target = target_of(args)
    no_names(target)
    only = fleet_of(target).name if target.manifests or target.fleet else ""
    policy, token = _policy(args)
    made = Dashboard(settings.load(), policy, only=only)
    over = _until_told()
    with DashboardServer(made, args.listen, tls=_tls(args), socket_group=args.socket_group) as server:
        out.say(f"{clock()} dashboard at {_where(server.address, policy, token)}")
        over.wait()
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise for flags that would let in whom nobody knows."""
    listen: ListenAddress = args.listen
    is_local = bool(listen.path) or is_loopback(listen.host)
    if args.trust_header and args.token_file:
        raise UsageError(
            "--trust-header and --token-file at once", hint="either the proxy knows who asks, or tokens do"
        )
    if (args.tls_cert is None) != (args.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    if args.trust_header and not args.proxy and not listen.path:
        hint = "--proxy 10.0.0.7, or --listen unix:/PATH, which only the proxy can open"
        raise UsageError("--trust-header without --proxy: anybody could write that header", hint=hint)
    if args.proxy and not args.trust_header:
        raise UsageError("--proxy needs --trust-header")
    if args.proxy and listen.path:
        hint = "leave --proxy out: only who may open the socket can ask"
        raise UsageError("--proxy with a unix socket: nobody has an address there", hint=hint)
    if args.socket_group and not listen.path:
        raise UsageError("--socket-group needs --listen unix:/PATH")
    if is_local:
        return
    if not args.trust_header and not args.token_file:
        hint = "--token-file FILE with --tls-cert and --tls-key, or --trust-header behind a proxy that knows who asks"
        raise Refused(f"{listen} can be reached from other machines, and nobody would be asked who they are", hint=hint)
    if args.token_file and args.tls_cert is None:
        hint = "--tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS"
        raise Refused(f"tokens would go over the network to {listen} in plain text", hint=hint)
    if not args.host_name and listen.host in ("0.0.0.0", "::"):
        raise UsageError(f"--listen {listen} needs --host-name", hint="the name that browsers know this server by")


def _policy(args: argparse.Namespace) -> tuple[Policy, str]:
    """The policy, and the token that is made where somebody acts and nobody else's word says who."""
    from fleet.operate.dashboard.access import Policy, Token, read_tokens

    listen: ListenAddress = args.listen
    tokens: tuple[Token, ...] = read_tokens(args.token_file) if args.token_file else ()
    token = ""
    if args.allow_actions and not tokens and not args.trust_header and not listen.path:
        token = secrets.token_urlsafe(24)
        tokens = (Token.of(who(), token),)
    own = {listen.host.lower()} if listen.host else set()
    names = frozenset({*(name.lower() for name in args.host_name), *own}) | _LOCAL_NAMES
    policy = Policy(
        hosts=names,
        tokens=tokens,
        trust_header=(args.trust_header or "").lower(),
        proxies=frozenset(args.proxy),
        is_secure=args.tls_cert is not None,
        may_act=args.allow_actions,
        nobody=who(),
    )
    return policy, token


def _tls(args: argparse.Namespace) -> Tls | None:
    from fleet.operate.dashboard.serving import Tls

    return Tls(args.tls_cert, args.tls_key) if args.tls_cert is not None else None


def _where(address: ListenAddress, policy: Policy, token: str) -> str:
    if address.path:
        return str(address)
    url = f"http{'s' if policy.is_secure else ''}://{address}/"
    return f"{url}login#{token}\n  whoever has this address may act as {policy.nobody}" if token else url


def _until_told() -> threading.Event:
    """Set by INT and TERM."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return over
