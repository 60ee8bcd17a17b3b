# SPDX-License-Identifier: GPL-2.0
"""What is compared: a policy, and how its requests come to the nodes."""

import dataclasses

# What a connection carries in the comparison of persistent ones.
REQUESTS = 8
# The default of the parameter disk-queue.
DISK_QUEUE = 5
# lard_sim's names of the modes.
MECHANISMS = {"pin": "single", "move": "multiple", "forward": "forwarding"}


@dataclasses.dataclass(frozen=True)
class Contestant:
    policy: str
    # Of each connection; 1 is HTTP/1.0.
    requests: int = 1
    mode: str = "pin"
    # Of the mode auto.
    mechanism: str = "move"

    @property
    def name(self):
        if self.requests == 1:
            return self.policy
        mode = f"auto ({self.mechanism})" if self.mode == "auto" else self.mode
        return f"{self.policy}, {mode}"

    @property
    def forwards(self):
        return "forward" in (self.mode, self.mode == "auto" and self.mechanism)

    def parameters(self, filling):
        """For `cluster_startup set`. While memories are filled from disks that nothing slows down, these
        count as busy in the mode auto: by its rule each node would get everything otherwise."""
        queue = 0 if filling and self.mode == "auto" else DISK_QUEUE
        return f"mode={self.mode} mechanism={self.mechanism} disk-queue={queue}"

    def simulated(self):
        """Arguments of lard_sim."""
        words = ["--policy", self.policy]
        if self.requests > 1:
            mechanism = self.mechanism if self.mode == "auto" else self.mode
            words += ["--persistent", "--mechanism", MECHANISMS[mechanism]]
        return words


# The first one is what the others are ratios of.
PERSISTENT = [
    Contestant("lard"),
    Contestant("wrr"),
    Contestant("extlard"),
    Contestant("lard", REQUESTS),
    Contestant("lard", REQUESTS, "move"),
    Contestant("lard", REQUESTS, "forward"),
    Contestant("extlard", REQUESTS),
    Contestant("extlard", REQUESTS, "auto", "move"),
    Contestant("extlard", REQUESTS, "auto", "forward"),
]
# What the papers found of these: who against whom, and the change in throughput.
FOUND = [
    ("lard, pin", "lard", "-35%"),
    ("extlard, auto (forward)", "extlard", "+26%"),
    ("extlard, auto (forward)", "wrr", "+300%"),
    ("extlard, auto (move)", "extlard, auto (forward)", "about 0%"),
]
