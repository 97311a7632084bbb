"""Looks at what a broker needs, with its settings and from its place, and says what is amiss."""
