"""What this project costs in time and memory, measured beside what a user would pick instead.

`make bench` runs all of it at sizes for a CPU; `python -m benchmarks --full` at the presets' own, for a GPU.
"""
