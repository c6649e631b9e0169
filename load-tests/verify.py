#!/usr/bin/env python3
"""Compares the tables with what the load generator sent, through ClickHouse's own Python client.

Nothing of Fleetlog is used: the rows are counted and added up by the engine, the sums that they must reach come from
`fleetlog-load --expected-file`. Three layers are compared, each with the one below it:

    rows in events       with what was sent          (this run's ids: a prefix made of the seed)
    llm_calls,           with what was sent          (this run's sessions)
    tool_calls, sessions
    usage_1m, usage_1h   with llm_calls              (the whole project: rollups know no session)

Exit code 0 when all agree, 1 when anything differs, 2 when ClickHouse is not reached.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect

# What is compared, by the generator's names; money in billionths of a dollar.
CALL_SUMS = """
    count() AS llm_calls,
    sum(in_uncached) AS in_uncached,
    sum(cache_read) AS cache_read,
    sum(out_visible) AS out_visible,
    toInt64(sum(ifNull(cost_reported, 0)) * 1000000000) AS cost_reported_nanos
"""

QUERIES = {
    "events": """
        SELECT
            count() AS rows,
            uniqExact(event_id) AS events,
            uniqExact(session_id) AS sessions,
            uniqExactIf(event_id, type = 'llm.request') AS llm_calls,
            uniqExactIf(event_id, tool_call_id != '') AS tool_calls,
            uniqExactIf(event_id, tool_call_id != '' AND status = 'error') AS tool_errors
        FROM events
        WHERE project_id = {project:String} AND startsWith(event_id, {event_prefix:String})
    """,
    "sums of events": """
        SELECT
            sum(in_uncached) AS in_uncached,
            sum(cache_read) AS cache_read,
            sum(out_visible) AS out_visible,
            toInt64(sum(ifNull(cost_reported, 0)) * 1000000000) AS cost_reported_nanos
        FROM (
            SELECT event_id, any(in_uncached) AS in_uncached, any(cache_read) AS cache_read,
                   any(out_visible) AS out_visible, any(cost_reported) AS cost_reported
            FROM events
            WHERE project_id = {project:String} AND startsWith(event_id, {event_prefix:String})
            GROUP BY event_id
        )
    """,
    "llm_calls": f"""
        SELECT {CALL_SUMS} FROM llm_calls
        WHERE project_id = {{project:String}} AND startsWith(session_id, {{session_prefix:String}})
    """,
    "tool_calls": """
        SELECT count() AS tool_calls, countIf(status = 'error') AS tool_errors FROM tool_calls
        WHERE project_id = {project:String} AND startsWith(session_id, {session_prefix:String})
    """,
    "sessions": """
        SELECT
            count() AS sessions,
            sum(event_count) AS events,
            sum(llm_call_count) AS llm_calls,
            sum(tool_call_count) AS tool_calls,
            sum(tool_error_count) AS tool_errors,
            sum(in_uncached) AS in_uncached,
            sum(cache_read) AS cache_read,
            sum(out_visible) AS out_visible,
            toInt64(sum(cost_reported) * 1000000000) AS cost_reported_nanos
        FROM sessions
        WHERE project_id = {project:String} AND startsWith(session_id, {session_prefix:String})
    """,
}

PROJECT_CALLS = f"SELECT {CALL_SUMS} FROM llm_calls WHERE project_id = {{project:String}}"
PROJECT_USAGE = """
    SELECT
        sum(calls) AS llm_calls,
        sum(in_uncached) AS in_uncached,
        sum(cache_read) AS cache_read,
        sum(out_visible) AS out_visible,
        toInt64(sum(cost_reported) * 1000000000) AS cost_reported_nanos
    FROM {view} WHERE project_id = {{project:String}}
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8123", help="ClickHouse's HTTP interface")
    parser.add_argument("--database", default="fleetlog")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password", default="")
    parser.add_argument("--project", default="default", help="project of the key that sent")
    parser.add_argument("--seed", type=int, required=True, help="seed of the run, as the generator printed it")
    expected = parser.add_mutually_exclusive_group(required=True)
    expected.add_argument("--expected", type=json.loads, help="the sums as JSON, as the generator printed them")
    expected.add_argument("--expected-file", type=Path, help="a file with them")
    parser.add_argument("--wait-s", type=float, default=60, help="how long derivations may lag, seconds")
    return parser.parse_args()


def connect(args):
    url = urlsplit(args.url)
    return clickhouse_connect.get_client(
        host=url.hostname,
        port=url.port or (8443 if url.scheme == "https" else 8123),
        secure=url.scheme == "https",
        username=args.user,
        password=args.password,
        database=args.database,
    )


def row(client, query, parameters):
    """The one row of a query, by column name, as exact integers."""
    result = client.query(query, parameters=parameters)
    (values,) = result.result_rows
    return {name: int(value) for name, value in zip(result.column_names, values)}


def compare(layer, found, expected, names):
    """The differences of a layer, as lines."""
    return [
        f"{layer}: {name} is {found[name]}, not {expected[name]} (off by {found[name] - expected[name]})"
        for name in names
        if found[name] != expected[name]
    ]


def check(client, args, expected):
    """Everything that differs now, and what was found."""
    parameters = {
        "project": args.project,
        "event_prefix": f"{args.seed:x}-",
        "session_prefix": f"s-{args.seed:x}-",
    }
    differences, found = [], {}
    for layer, query in QUERIES.items():
        found[layer] = row(client, query, parameters)
        differences += compare(layer, found[layer], expected, [n for n in found[layer] if n in expected])
    repeats = found["events"]["rows"] - found["events"]["events"]
    if repeats:
        differences.append(f"events: {repeats} rows repeat an event that is there already")
    calls = row(client, PROJECT_CALLS, parameters)
    for view in ("usage_1m", "usage_1h"):
        found[view] = row(client, PROJECT_USAGE.format(view=view), parameters)
        differences += compare(f"{view} against llm_calls of the project", found[view], calls, list(calls))
    return differences, found


def main():
    args = arguments()
    expected = json.loads(args.expected_file.read_text()) if args.expected is None else args.expected
    try:
        client = connect(args)
    except Exception as error:  # The client has no common class for "not reached".
        print(f"{args.url} is not reached: {error}", file=sys.stderr)
        return 2
    deadline = time.monotonic() + args.wait_s
    while True:
        differences, found = check(client, args, expected)
        if not differences or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for layer, sums in found.items():
        print(f"{layer:>16}: " + ", ".join(f"{name} {value}" for name, value in sums.items()))
    for difference in differences:
        print(difference, file=sys.stderr)
    print("differs" if differences else "all agree")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
