#!/usr/bin/env bash
# The image under the real Testcontainers modules of Python, Java and Go: modules.sh [IMAGE].
# In a container with a Docker daemon of its own, set TESTCONTAINERS_HOST_OVERRIDE=localhost: Java's modules otherwise run a public image to find the host.
set -euo pipefail
cd "$(dirname "$0")"
image=${1:-dlog}
# The container that cleans up after others is an image that may not be had here.
export TESTCONTAINERS_RYUK_DISABLED=true
python3 python_modules.py "$image"
mvn -q -B -f java/pom.xml compile dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=target/libs
java -cp 'java/target/classes:java/target/libs/*' Modules "$image"
(cd go && go build -o target/modules .)
go/target/modules "$image"
