"""Whether a bundle may run here: nothing of it is believed until every check has passed.

Archive, hashes and signature are checked in this process. The graphs are parsed, walked, loaded
and tried in a limited child process, so that a hostile one can at worst kill the child.
"""
