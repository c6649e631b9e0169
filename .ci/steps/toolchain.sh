# Sourced by .ci/run: says what is missing before anything is built.

missing=()
for tool in cargo cc make java mvn npm python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
    echo "missing on this machine: ${missing[*]}" >&2
    exit 1
fi

# A minimal Rust toolchain has neither; rustup, where there is one, adds them.
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    rustup component add rustfmt clippy
fi

step "toolchain"
cargo --version
cargo clippy --version
java -version 2>&1 | head -n 1
python3 --version
