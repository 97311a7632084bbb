"""Opens a stream of a task that doesn't exist yet, and waits for a heartbeat on it."""

import os
import ssl
import sys
import urllib.error
import urllib.request

headers = {"Accept": "text/event-stream"}
if token := os.environ.get("SIDECAST_TOKEN"):
    headers["Authorization"] = f"Bearer {token}"
request = urllib.request.Request(f"{sys.argv[1]}/tasks/helm-test/events?wait_s=60", headers=headers)
# The certificate's name is the public one, not the Service's; but a credential goes to nobody unverified.
context = ssl.create_default_context() if token else ssl._create_unverified_context()
try:
    with urllib.request.urlopen(request, timeout=55, context=context) as stream:
        for line in stream:
            if line.startswith(b":"):
                sys.exit(0)
        sys.exit("the stream ended without a heartbeat")
except urllib.error.HTTPError as error:
    hint = "; name a credential in test.tokenSecret" if error.code == 401 else ""
    sys.exit(f"the stream was refused with {error.code}{hint}")
