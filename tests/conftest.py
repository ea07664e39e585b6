"""What all tests need of the process that runs them."""

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and every process that
# they start would inherit that: what Ctrl-C does could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
