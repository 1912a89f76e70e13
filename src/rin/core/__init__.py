"""The ground every layer stands on: errors, the shape legend, denoisers and conditions, chance, processes."""
