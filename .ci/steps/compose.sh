# Sourced by .ci/run: the compose file against the compose specification's schema, and against our own rules.
# No docker daemon is needed; the schema is part of check-jsonschema.

checks=$tools/checks-$(cksum <.ci/requirements.txt | tr ' ' -)
if [[ ! -e $checks/complete ]]; then
    rm -rf "$checks"
    python3 -m venv "$checks"
    "$checks/bin/python" -m pip install --quiet --requirement .ci/requirements.txt
    touch "$checks/complete"
fi
"$checks/bin/check-jsonschema" --builtin-schema vendor.compose-spec docker-compose.yml
"$checks/bin/python" .ci/compose_rules.py docker-compose.yml
