"""The fault, the queries of the dashboard and the alert: the part of contrib/check that talks to Prometheus."""

import json
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request

PROMETHEUS = "http://127.0.0.1:9090/api/v1/"


# What is found of a listener that accepts nothing, and of its clients on the same host.
FULL = {"accept-loop-stalled", "accept-queue-overflow", "connect-unanswered", "fd-exhaustion"}


def get(path, **parameters):
    url = PROMETHEUS + path + "?" + urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)["data"]


def until(what, seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit(f"{what}: not within {seconds} s")


def closes_with_unread_data(stop):
    """A server that closes connections with bytes unread: each is a reset that its client sees."""
    # As large as net.core.somaxconn allows, which then is what binds.
    listener = socket.create_server(("127.0.0.1", 9000), backlog=65535)
    while not stop.is_set():
        client = socket.create_connection(("127.0.0.1", 9000))
        server, _ = listener.accept()
        client.send(b"x" * 100)
        time.sleep(0.05)
        server.close()
        client.close()
    # It goes on, and is well.
    while True:
        client = socket.create_connection(("127.0.0.1", 9000))
        server, _ = listener.accept()
        client.close()
        server.close()
        time.sleep(0.1)


def full_queue():
    """A listener that accepts nothing: its queue fills, and what comes then is lost."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 8080))
    listener.listen(2)
    clients = []
    for _ in range(40):
        client = socket.socket()
        client.setblocking(False)
        try:
            client.connect(("127.0.0.1", 8080))
        except BlockingIOError:
            pass
        clients.append(client)
        time.sleep(0.2)
    return listener, clients


def queries(dashboard):
    with open(dashboard, encoding="utf-8") as file:
        panels = json.load(file)["panels"]
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "20s").replace("$__range", "5m").replace("$instance", ".*").replace("$job", ".*")
            yield panel["title"], expression


def main():
    until("the first scrape", 60, lambda: get("query", query="rstdoctor_build_info")["result"])
    time.sleep(5)
    stop = threading.Event()
    fault = threading.Thread(target=closes_with_unread_data, args=(stop,), daemon=True)
    fault.start()
    keep = full_queue()
    until("the alert", 60, lambda: [
        alert for alert in get("alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"].get("cause") == "close-with-unread-data"
    ])
    # What follows from the full listener's owner accepting nothing: one alert, whatever else is found there.
    until("one alert about the full listener", 30, lambda: len([
        alert for alert in get("alerts")["alerts"]
        if alert["labels"]["alertname"] == "RstdoctorCauseCritical" and alert["labels"].get("cause") in FULL
    ]) == 1)
    lost = get("query", query='rstdoctor_service_failures_total{port="8080"}')["result"]
    if not lost or float(lost[0]["value"][1]) == 0:
        sys.exit("attempts that the full listener lost are no failures")
    empty = [(title, expression) for title, expression in queries(sys.argv[1]) if not get("query", query=expression)["result"]]
    for title, expression in empty:
        print(f"{title}: no data: {expression}")
    if empty:
        sys.exit("queries without data")
    stop.set()
    del keep
    until("the end of the alert", 120, lambda: not [
        alert for alert in get("alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"].get("cause") == "close-with-unread-data"
    ])
    print("every query of the dashboard returned data; the alert fired and ended")


main()
