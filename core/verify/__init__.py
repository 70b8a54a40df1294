"""Finds the kernel that is wrong: shadows, verdicts, traces, votes, bisection, replay capsules."""
