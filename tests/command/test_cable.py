# SPDX-License-Identifier: LGPL-2.1-or-later
"""A camera behind a network that loses packets, and whose cable is pulled: in a network namespace of its own, at the other
end of a pair of virtual devices. Needs root, iproute2 and nftables."""

import json
import os
import re
import subprocess

import pytest

from test_network import SECOND, Camera, Watch, check_time_line, wait_for

NETWORKS = ("198.51.100", "203.0.113", "192.0.2")  # that RFC 5737 keeps for examples; machines use them all the same
RULES = """
table netdev loss {
  chain leaving {
    type filter hook egress device %s priority 0; policy accept;
    ip protocol udp %s counter drop
  }
}
"""


class Cable:
    """A namespace and the devices that lead into it."""

    def __init__(self):
        self.name = f"vlm-{os.getpid()}"
        self.here, self.there = f"vlm{os.getpid()}a", f"vlm{os.getpid()}b"
        self.address = None  # of the camera
        self.inside = ("ip", "netns", "exec", self.name)

    def __enter__(self):
        try:
            self.run("ip", "netns", "add", self.name)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespace can be made here: {getattr(error, 'stderr', None) or error}")
        try:
            self.connect()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            pytest.skip(f"no pair of network devices can be made here: {error.stderr}")
        return self

    def connect(self):
        used = self.run("ip", "-4", "address") + self.run("ip", "-4", "route")
        network = next((network for network in NETWORKS if network not in used), None)
        if network is None:
            self.__exit__()
            pytest.skip("all networks for examples are in use here")
        here, self.address = f"{network}.1", f"{network}.2"
        self.run("ip", "link", "add", self.here, "type", "veth", "peer", "name", self.there, "netns", self.name)
        for address, device, where in ((here, self.here, ()), (self.address, self.there, self.inside)):
            self.run(*where, "ip", "address", "add", f"{address}/30", "dev", device)
            self.run(*where, "ip", "link", "set", device, "up")

    def __exit__(self, *_):
        # The devices go with it; a server that is still in there keeps it until it ends.
        subprocess.run(["ip", "link", "delete", self.here], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)

    @staticmethod
    def run(*words, **kwargs):
        return subprocess.run(words, check=True, capture_output=True, text=True, **kwargs).stdout

    def lose(self, percent):
        """So many of all UDP packets from the camera, by chance."""
        chance = f"numgen random mod 100 < {percent}" if percent < 100 else ""
        try:
            self.run(*self.inside, "nft", "flush", "ruleset")
            self.run(*self.inside, "nft", "-f", "-", input=RULES % (self.there, chance))
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"nftables cannot drop packets here: {getattr(error, 'stderr', None) or error}")

    def lost(self):
        """How many packets."""
        return int(re.search(r"counter packets (\d+)", self.run(*self.inside, "nft", "list", "ruleset"))[1])

    def pull(self):
        self.run(*self.inside, "ip", "link", "set", self.there, "down")

    def plug(self):
        self.run(*self.inside, "ip", "link", "set", self.there, "up")


@pytest.fixture
def cable():
    with Cable() as made:
        yield made


@pytest.fixture
def camera(cable):
    made = Camera("blue", host=cable.address, inside=cable.inside)
    yield made
    made.kill()


def ended(watch):
    """Ctrl-C, the lines on standard error without the last, and its counts."""
    *lines, last = watch.stop()
    pattern = r"(\d+) frames, (\d+) intervals: (\d+) described, (\d+) passed over, (\d+) failed; .*"
    counts = dict(zip(("frames", "intervals", "described", "passed over", "failed"),
                      map(int, re.search(pattern, last).groups())))
    records = [json.loads(line) for line in watch.text().splitlines()]
    assert counts["described"] == len(records) and counts["failed"] == 0
    assert counts["intervals"] == counts["described"] + counts["passed over"]
    check_time_line(records)
    return [line for line in lines if line.startswith("vlm-describe: ")], last


def test_a_network_that_loses_packets(command, tmp_path, cable, camera):
    cable.lose(10)
    with Watch(command, tmp_path, "-v", "--lost-after", 30, camera.uri) as watch:
        wait_for(lambda: len(watch.records()) >= 10 and cable.lost() > 20, "ten descriptions in spite of the losses")
        lines, last = ended(watch)
    assert not any("was lost" in line for line in lines) and last.endswith("lost 0 times")
    assert watch.count("blue") >= 5


def test_a_cable_that_is_pulled_and_plugged_in_again(command, tmp_path, cable, camera):
    with Watch(command, tmp_path, "-v", "--lost-after", 3, camera.uri) as watch:
        watch.wait_for("blue")
        cable.pull()
        watch.wait_for_line("was lost")
        before = len(watch.records())
        cable.plug()
        watch.wait_for_line("is there again")
        watch.wait_for("blue", before + 3)
        lines, last = ended(watch)
    told = [re.sub(r"\(.*\)|\d+(\.\d)? s", "X", line) for line in lines if camera.uri in line]
    assert told == [f"vlm-describe: {camera.uri} was lost X; connecting again",
                    f"vlm-describe: {camera.uri} is there again after X"]
    assert last.endswith("lost 1 time")
    pause = max(later["pts"] - earlier["pts"] for earlier, later in zip(watch.records(), watch.records()[1:]))
    assert pause > 3 * SECOND


def test_a_cable_that_is_out_when_the_end_comes(command, tmp_path, cable, camera):
    with Watch(command, tmp_path, camera.uri, ending="vtt") as watch:
        wait_for(lambda: watch.text().count(" --> ") >= 2, "cues")
        cable.pull()
        watch.stop()
    cues = watch.text().split("\n\n")
    assert cues[0] == "WEBVTT" and all("blue" in cue for cue in cues[1:] if cue.strip())


def test_a_network_that_lets_no_udp_through(command, tmp_path, cable, camera):
    """The camera is asked for its packets by TCP then, over the connection that it is told by what to send."""
    cable.lose(100)
    with Watch(command, tmp_path, "-v", "--lost-after", 30, camera.uri) as watch:
        watch.wait_for("blue")
        assert cable.lost() > 0
        ended(watch)
