# Sourced by .ci/run: every service must accept the settings that Dockerfile and compose file give it; an unknown key
# would otherwise be found by whoever starts the containers first.

cargo build --locked --workspace --bins
programs=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug
settings=$(mktemp --suffix .toml)
sed -n "/<<'TOML'/,/^TOML\$/p" Dockerfile | sed '1d;$d' >"$settings"
mapfile -t given < <("$checks/bin/python" .ci/compose_settings.py docker-compose.yml)
((${#given[@]})) || { echo "the compose file gives the services no settings" >&2; exit 1; }
for service in ingest-gateway processor aggregator query-api; do
    env "${given[@]}" "$programs/fleetlog-$service" --config "$settings" --check-config
    echo "fleetlog-$service accepts its settings"
done
rm -f "$settings"
