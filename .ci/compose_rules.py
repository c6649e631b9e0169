"""What the compose specification's schema cannot say about our compose file.

Usage: compose_rules.py FILE. Prints one line per broken rule and exits 1 when there is one.
"""

import sys
import xml.etree.ElementTree

import ruamel.yaml

SERVICES = {"ingest-gateway", "processor", "aggregator", "query-api"}
# Both images write their settings into their own folders at start.
WRITABLE_ROOT = {"kafka", "clickhouse"}


def broken_rules(compose: dict) -> list[str]:
    """Returns a sentence for each rule that the file breaks."""
    services = compose["services"]
    broken = [f"{name}: has no container of its own" for name in sorted(SERVICES - services.keys())]
    used = {"volumes": set(), "networks": set(), "configs": set()}
    for name, service in services.items():
        broken += [f"{name}: {rule}" for rule in broken_by(name, service, services)]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith((".", "/")):
                used["volumes"].add(source)
        used["networks"].update(service.get("networks", []))
        used["configs"].update(config["source"] for config in service.get("configs", []))
    for kind, names in used.items():
        declared = set(compose.get(kind, {}))
        broken += [f"{kind}: {name} is used and not declared" for name in sorted(names - declared)]
        broken += [f"{kind}: {name} is declared and not used" for name in sorted(declared - names)]
    return broken + broken_configs(compose.get("configs", {}))


def broken_by(name: str, service: dict, services: dict) -> list[str]:
    """The rules of one service."""
    broken = []
    image = service.get("image", "")
    if ":" not in image or image.endswith(":latest"):
        broken.append("its image has no fixed tag")
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    if not {"cpus", "memory"} <= limits.keys():
        broken.append("has no limit for CPU and memory")
    if name not in WRITABLE_ROOT and not service.get("read_only"):
        broken.append("its root file system is writable")
    if "no-new-privileges:true" not in service.get("security_opt", []):
        broken.append("may gain privileges")
    if "max-size" not in service.get("logging", {}).get("options", {}):
        broken.append("its log may fill the disk")
    long_running = service.get("restart") == "unless-stopped"
    if long_running and "test" not in service.get("healthcheck", {}):
        broken.append("has no health check")
    for port in service.get("ports", []):
        if not str(port).startswith("127.0.0.1:"):
            broken.append(f"port {port} is open to the network")
    for other, wanted in service.get("depends_on", {}).items():
        if other not in services:
            broken.append(f"waits for {other}, which does not exist")
        elif wanted["condition"] == "service_healthy" and "healthcheck" not in services[other]:
            broken.append(f"waits for {other} to be healthy, which it never says")
    return broken


def broken_configs(configs: dict) -> list[str]:
    """ClickHouse's settings must be well-formed, or the server does not start."""
    broken = []
    for name, config in configs.items():
        try:
            xml.etree.ElementTree.fromstring(config["content"])
        except xml.etree.ElementTree.ParseError as error:
            broken.append(f"configs: {name} is not well-formed XML: {error}")
    return broken


def main() -> int:
    """Checks the file that the command line names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        broken = broken_rules(ruamel.yaml.YAML(typ="safe").load(file))
    for line in broken:
        print(f"{sys.argv[1]}: {line}", file=sys.stderr)
    if not broken:
        print(f"{sys.argv[1]}: our own rules hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
