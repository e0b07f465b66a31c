"""What installed packages bring along: found by name, imported so that it does no harm, its faults told in a line."""
