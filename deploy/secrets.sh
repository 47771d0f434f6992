#!/bin/sh
# Writes new passwords into the folder secrets/ and has compose use them. For before the first start: a database keeps the
# passwords that it was made with.
set -eu
cd "$(dirname "$0")/.."
mkdir -m 700 secrets
for name in postgres app worker monitor grafana; do
  # readable for the users in the containers; the folder keeps everybody else out
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/${name}_password"
done
echo 'STACK_SECRETS=./secrets' >> .env
