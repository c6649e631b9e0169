# Sourced by .ci/run: the README's own test command, and the sum of what it ran.

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# `pipefail` makes this the tests' own exit code, not tee's.
status=0
cargo xtask test 2>&1 | tee "$log" || status=$?

step "totals"
awk '
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^ignored/) ignored += $(i - 1)
        }
    }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored
        exit passed == 0
    }
' "$log" || { echo "no test was run" >&2; exit 1; }
exit "$status"
