"""Watches a client library at work: it must finish without a complaint, a refused request or a retry.

The libraries do not raise what goes wrong in their background threads; they log it. So every record of every logger is
heard, down to the lines in which the HTTP libraries name the status of each answer.
"""

import json
import logging
import os
import re
import sys
import threading

URL = os.environ["FLEETLOG_URL"]
KEY = os.environ["FLEETLOG_KEY"]
SESSION = os.environ["FLEETLOG_SESSION"]

# httpx: `HTTP Request: POST http://… "HTTP/1.1 207 Multi-Status"`; urllib3: `"POST /v1/traces HTTP/1.1" 200 2`.
STATUS = re.compile(r'"HTTP/[\d.]+ (\d{3})|HTTP/[\d.]+" (\d{3})')
RETRY = re.compile(r"\bretrying\b|\bbacking off\b", re.IGNORECASE)


class Witness:
    def __init__(self):
        self.complaints = []
        self.statuses = []

    def hear(self, record):
        message = record.getMessage()
        status = STATUS.search(message)
        if status:
            self.statuses.append(int(status.group(1) or status.group(2)))
        if record.levelno >= logging.WARNING or RETRY.search(message):
            self.complaints.append(f"{record.name}: {message}")


witness = Witness()
handle = logging.Logger.handle


def overhear(logger, record):
    """Hears a record whatever its logger's level, handlers and parents are, which libraries set as they like."""
    witness.hear(record)
    if record.levelno >= logger.getEffectiveLevel():
        handle(logger, record)


logging.Logger.handle = overhear
logging.Logger.isEnabledFor = lambda logger, level: True
threading.excepthook = lambda args: witness.complaints.append(f"a thread died: {args.exc_value!r}")


def finish(requests=True):
    """Says what was seen, and fails when anything went wrong. A transport that names no statuses passes False."""
    refused = [status for status in witness.statuses if status >= 400]
    print(json.dumps({"statuses": witness.statuses, "complaints": witness.complaints}))
    if refused or witness.complaints or (requests and not witness.statuses):
        sys.exit(1)
