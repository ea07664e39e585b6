#!/bin/sh
# Makes the tokens of the stack, once: what is there already stays.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
secret() { [ -s "secrets/$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$1"; }
secret read.token
secret trigger.token
secret promote.token
secret grafana.password
if [ ! -s secrets/tokens.toml ]; then
  {
    printf '[prometheus]\nsecret = "%s"\nscopes = ["read"]\n\n' "$(cat secrets/read.token)"
    printf '[alertmanager]\nsecret = "%s"\nscopes = ["trigger"]\n\n' "$(cat secrets/trigger.token)"
    printf '[operator]\nsecret = "%s"\nscopes = ["read", "trigger", "promote"]\n' "$(cat secrets/promote.token)"
  } > secrets/tokens.toml
fi
# Each container reads its own file as its own user: the folder keeps everybody else out.
chmod 700 secrets
chmod 644 secrets/read.token secrets/trigger.token secrets/grafana.password
chmod 600 secrets/tokens.toml
if [ "$(id -u)" = 0 ]; then
  chown 65532:65532 secrets/tokens.toml
else
  echo "tokens.toml must belong to user 65532 of the analyzer's container: sudo chown 65532:65532 $PWD/secrets/tokens.toml" >&2
fi
