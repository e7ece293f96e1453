"""What several wings do to components: masks that keep or leave each of them, row by row."""
