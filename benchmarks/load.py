"""Ask a server for pages of the patients' list, as fast as it answers, and check each answer.

Run by request.py: what to ask comes as JSON on the standard input; the number of answers, answers a
second and processor seconds an answer go to the standard output. It only needs the standard
library, so that it takes little of the machine.
"""

from __future__ import annotations

import json
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from time import perf_counter, process_time

ROWS = 20
# A link of the HTML page, or a key of the JSON object.
_ID = re.compile(rb'(?:href="/patients/|"id":)(\d+)')


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask: each client is a user of the practice whose cookie is its turn."""

    port: int
    path: str
    pages: int
    cookies: list[str]
    clients: int
    seconds: float

    def browse(self, client: int) -> int:
        """Return how many pages *client* was shown before the time was over."""
        practice = client % len(self.cookies)
        headers, choice = {"Cookie": self.cookies[practice]}, random.Random(client)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        end, answers = perf_counter() + self.seconds, 0
        while perf_counter() < end:
            page = choice.randrange(self.pages) + 1
            connection.request("GET", f"{self.path}?page={page}", headers=headers)
            check(connection.getresponse(), practice)
            answers += 1
        connection.close()
        return answers


def check(response: HTTPResponse, practice: int) -> None:
    """Raise unless *response* is a full page of the practice's own patients."""
    status, body = response.status, response.read()
    ids = [int(each) for each in _ID.findall(body)]
    # The patients' numbers alternate between the practices.
    if status != 200 or len(ids) != ROWS or any((each - 1) % 2 != practice for each in ids):
        raise ValueError(f"Wrong answer: status {status}, {len(ids)} patients.")


def main() -> None:
    load = Load(**json.load(sys.stdin))
    start = perf_counter()
    with ThreadPoolExecutor(load.clients) as clients:
        answers = sum(clients.map(load.browse, range(load.clients)))
    seconds = perf_counter() - start
    print(json.dumps([answers, answers / seconds, process_time() / answers]))


if __name__ == "__main__":
    main()
