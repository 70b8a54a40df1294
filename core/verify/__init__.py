"""Finding the kernel that is wrong: shadows, traces, votes, blame, replay capsules."""
