"""``asyncjobs demo``: a real job on real input, killed half-way, that loses nothing.

It uses the library as an application would, through its public names only:

* ``source``: what is to be done, without any job: one Python file's facts
* ``tasks``, ``report``: the same as tasks
* ``host``: the process that runs the jobs and dies half-way
* ``ledger``: what the demo writes down beside the library, to hold it to account
* ``options``, ``command``, ``audit``: the process that starts the hosts and judges them
"""
