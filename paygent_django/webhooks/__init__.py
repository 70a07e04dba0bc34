"""temp"""
def note_usage(project, users): pass
def note_gates(project, rows): pass
