"""What causes what: graphs through a network made linear, edges and patches, heads, and interventions that test them."""
