"""Room 7: the published remedies, one file each; every one is a function from a course to a course."""
