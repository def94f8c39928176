#!/usr/bin/env bash
# Measures peers, the time to a solved agent, scaling, PQN, Breakout and the limit on one GPU, within eight minutes and
# without a network.
#
#   bash benchmarks/gpu.sh [--wheels DIR] [--out DIR]    writes gpu.json and gpu.md to DIR (default benchmarks/results)
#   bash benchmarks/gpu.sh --rehearse                    the same with tiny sizes on any device: three minutes
#   bash benchmarks/gpu.sh --quick                       a minute: without peers, nothing kept
#   bash benchmarks/gpu.sh --fetch DIR [--python 3.12]   with a network: only downloads wheels for that Python to DIR
#
# The interpreter is python3, or PYTHON if it is set. The machine must have JAX with GPU support and PyTorch. The folder
# given by --wheels, which --fetch fills (80 MB), has all other packages, and in DIR/rejax rejax with the old gymnax that it
# needs. Only packages that the machine lacks are installed, into a temporary directory, so you may delete the others from
# DIR. The machine's own packages are not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
wheels='' out=() rehearse=() fetch='' version=3.12
while [ $# -gt 0 ]; do
  case $1 in
    --wheels | --out | --fetch | --python)
      [ $# -gt 1 ] || { echo "error: $1 needs a value" >&2; exit 2; } ;;&
    --wheels) wheels=$(realpath "$2"); shift 2 ;;
    --out) out=(--out "$(realpath -m "$2")"); shift 2 ;;
    --rehearse | --quick) rehearse=("$1"); shift ;;
    --fetch) fetch=$2; shift 2 ;;
    --python) version=$2; shift 2 ;;
    *) echo "error: unknown option $1; see the first lines of $0" >&2; exit 2 ;;
  esac
done

if [ -n "$fetch" ]; then
  platforms=(manylinux1_x86_64 manylinux2014_x86_64 manylinux_2_17_x86_64 manylinux_2_27_x86_64 manylinux_2_28_x86_64)
  get=("$python" -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "$version")
  for one in "${platforms[@]}"; do get+=(--platform "$one"); done
  "${get[@]}" -d "$fetch" -r benchmarks/baselines/gpu.txt
  "${get[@]}" -d "$fetch/rejax" -r benchmarks/baselines/gpu_rejax.txt
  ls "$fetch" "$fetch/rejax"
  exit
fi
if [ -n "$wheels" ] && ! compgen -G "$wheels/*.whl" > /dev/null; then
  echo "error: --wheels: there are no wheels in $wheels" >&2
  exit 2
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
install=("$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile)
if [ -n "$wheels" ]; then
  mapfile -t lacking < <("$python" - "$wheels" << 'END'
import importlib.metadata
import pathlib
import sys

for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    try:
        importlib.metadata.version(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
END
  )
  if [ ${#lacking[@]} -gt 0 ]; then
    printf 'installing for this run: %s\n' "${lacking[@]##*/}" >&2
    "${install[@]}" --target "$scratch/site" "${lacking[@]}"
  fi
  if compgen -G "$wheels/rejax/*.whl" > /dev/null; then
    "${install[@]}" --target "$scratch/rejax" "$wheels"/rejax/*.whl
    rejax=(--rejax "$scratch/rejax:$scratch/site")
  fi
fi
PYTHONPATH="$scratch/site" "$python" -m benchmarks.gpu ${rehearse[@]+"${rehearse[@]}"} ${out[@]+"${out[@]}"} ${rejax[@]+"${rejax[@]}"}
