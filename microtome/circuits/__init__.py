"""What causes what: attribution graphs through a network made linear, their pruning, and interventions that test them."""
