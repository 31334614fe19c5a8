#!/bin/sh
# Prints a secret of the shop: `secret.sh NAME VARIABLE`. The variable counts if it is set; else a file that is made on
# first use, mode 0600.
set -eu
name=$1
value=$(printenv "$2") || value=
if [ -z "$value" ]; then
    umask 077
    folder=${SHOP_STATE:-$HOME/.local/state/shop}
    file=$folder/secrets/$name
    if [ ! -e "$file" ]; then
        mkdir -p "$folder/secrets"
        od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$file.$$"
        ln "$file.$$" "$file" 2>/dev/null || true  # of two at once, the first wins
        rm -f "$file.$$"
    fi
    value=$(cat "$file")
fi
printf '%s\n' "$value"
