"""Actions, one file each: what is done about a group, with its effect measured."""
