"""Room 7: the published mitigations, one file each; every one is a function from a course to a course."""
