# Sourced by .ci/run: cargo-deny, compiled once from its source and kept.

deny_version=0.20.2
deny_root=$tools/cargo-deny-$deny_version
if [[ ! -x $deny_root/bin/cargo-deny ]]; then
    cargo install --locked --root "$deny_root" --version "$deny_version" cargo-deny
fi
deny=("$deny_root/bin/cargo-deny" --locked)

# Without the network: these read the lock file and the sources that cargo has fetched already.
cargo fetch --locked
"${deny[@]}" --offline check bans licenses sources

# The advisories live in a git repository of their own, which not every machine reaches. Where it is reached, they
# count; where it is not, that is said, and nothing is claimed.
if timeout 120 "${deny[@]}" fetch db; then
    "${deny[@]}" check --disable-fetch advisories
else
    echo "advisories: not reachable from this machine, skipped"
fi
