"""Prints the environment that the compose file gives to our services, one KEY=VALUE a line.

Usage: compose_settings.py FILE. Variables of the caller's environment stand at their defaults.
"""

import re
import sys

import ruamel.yaml

DEFAULTED = re.compile(r"\$\{\w+:-(?P<default>[^}]*)\}")


def main() -> None:
    """Prints the environment of the file that the command line names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        compose = ruamel.yaml.YAML(typ="safe").load(file)
    for key, value in compose["x-fleetlog"]["environment"].items():
        print(key, DEFAULTED.sub(r"\g<default>", str(value)), sep="=")


if __name__ == "__main__":
    main()
