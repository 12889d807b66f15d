#!/bin/bash
# Start Ray on this machine for `synth render`, and stay until stopped (Ctrl-C or SIGTERM).
#
#   docs/cluster/ray-node.sh --head                  on one machine
#   docs/cluster/ray-node.sh --address HEAD:6379     on each of the others
#
# More words go to `ray start`: --num-cpus 0 on a head that shall make no shards, --num-cpus N,
# --temp-dir, --node-ip-address where a machine has several networks. Every machine needs the same
# token in ~/.ray/auth_token (`ray get-auth-token --generate` writes one), the same packages and,
# for s3://, the AWS_* variables.
set -euo pipefail

export RAY_AUTH_MODE=token # without it, whoever reaches the port runs code as you
export RAY_memory_usage_threshold=${RAY_memory_usage_threshold:-0.9}

# Workers exchange paths and small records, never frames: a small object store is enough.
exec ray start --block --disable-usage-stats --object-store-memory 200000000 "$@"
