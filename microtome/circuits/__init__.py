"""What causes what: graphs through a network made linear, edges, patches, heads, and interventions that test them."""
