"""How networks come to be: series over checkpoints, phases, progress measures, learning coefficients."""
