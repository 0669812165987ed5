#!/usr/bin/env bash
# Installs what one client's driver needs: install.sh CLIENT. Only the registries of the languages and Debian's packages are used.
set -euo pipefail
cd "$(dirname "$0")"
venv=.venv
python() {
  [[ -x $venv/bin/python ]] || python3 -m venv "$venv"
  "$venv/bin/pip" -q --disable-pip-version-check install "$@"
}
case ${1:-} in
  kcat) command -v kcat >/dev/null || { apt-get -qq update && apt-get -qq install -y kcat; } ;;
  confluent-kafka) python confluent-kafka ;;
  kafka-python) python kafka-python python-snappy lz4 zstandard ;;
  aiokafka) python aiokafka cramjam ;;
  java | kafka-tools | kafka-data) (cd java && [[ -d target/libs && target/Driver.class -nt src/main/java/Driver.java && target/Driver.class -nt src/main/java/WordCount.java && target/Driver.class -nt pom.xml ]] || {
      rm -rf target
      mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/target/libs"
      mvn -q -B -f tools/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/target/tools"
      javac -cp 'target/libs/*' -d target src/main/java/*.java
    }) ;;
  ecosystem | examples | edges) ;; # they install what they need
  franz-go | sarama) (cd "$1" && go build -o target/driver .) ;;
  rust-rdkafka) (cd rust-rdkafka && cargo build --quiet --release) ;;
  kafkajs) (cd kafkajs && npm install --silent --no-audit --no-fund) ;;
  *) echo "usage: install.sh CLIENT" >&2; exit 2 ;;
esac
