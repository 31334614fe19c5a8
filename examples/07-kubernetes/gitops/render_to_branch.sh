#!/bin/sh
# Render one environment and commit what comes out to its branch: sh render_to_branch.sh production
# Without a change there is no commit, as the same files give the same bytes. The branch holds nothing else.
set -eu
environment=$1
branch=env/$environment
top=$(git rev-parse --show-toplevel)
from=$(git -C "$top" rev-parse --short HEAD)
rendered=$(mktemp -d)
tree=$(mktemp -d)
new=new-$environment-$from
trap 'git -C "$top" worktree remove --force "$tree" 2>/dev/null || true
  git -C "$top" branch --quiet -D "$new" 2>/dev/null || true
  rm -rf "$rendered" "$tree"' EXIT

(cd "$top" && FLEET=${FLEET:-fleet} sh examples/07-kubernetes/render.sh "$rendered" >/dev/null)

git -C "$top" fetch --quiet origin "+refs/heads/$branch:refs/remotes/origin/$branch" 2>/dev/null || true
if git -C "$top" rev-parse --quiet --verify "refs/remotes/origin/$branch" >/dev/null; then
  git -C "$top" worktree add --quiet --detach "$tree" "refs/remotes/origin/$branch"
else
  git -C "$top" worktree add --quiet --detach "$tree" HEAD
  git -C "$tree" checkout --quiet --orphan "$new"
  git -C "$tree" rm --quiet -r --cached .
fi
find "$tree" -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +    # what left the manifest leaves the branch
cp -R "$rendered/$environment/." "$tree"
git -C "$tree" add --all
if git -C "$tree" diff --cached --quiet; then
  echo "$branch: nothing changed"
  exit 0
fi
git -C "$tree" commit --quiet -m "render $environment from $from"
git -C "$tree" push --quiet origin "HEAD:refs/heads/$branch"
echo "$branch: $(git -C "$tree" show --stat --format= HEAD | tail -1)"
