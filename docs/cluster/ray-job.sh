#!/bin/bash
# Render a plan as a job of a running Ray cluster, follow its log, exit with 0 if all is done.
#
#   export RAY_API_SERVER_ADDRESS=http://HEAD:8265
#   docs/cluster/ray-job.sh PLAN OUT [options of synth render]
#
# The command runs on the head, so paths are the cluster's: a shared folder, written in full, or
# s3://. Ctrl-C here ends the following, not the job; `ray job stop ID` ends the job.
set -euo pipefail

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}

# `ray job stop` kills after 3 seconds; shards that are begun may take longer to finish.
exec ray job submit --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}}' \
    -- synth render "$@" --address auto
