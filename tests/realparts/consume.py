# A real consumer, PyPI "atproto": prints one JSON line for each event until it is killed.
# usage: python consume.py ws://127.0.0.1:2470/xrpc CURSOR
import json
import sys

from atproto import CAR, FirehoseSubscribeReposClient, models, parse_subscribe_repos_message

Messages = models.ComAtprotoSyncSubscribeRepos
client = FirehoseSubscribeReposClient(Messages.Params(cursor=int(sys.argv[2])), base_uri=sys.argv[1])


def on_message(message):
    event = parse_subscribe_repos_message(message)
    if isinstance(event, Messages.Commit):
        CAR.from_bytes(event.blocks)
    line = {
        'kind': type(event).__name__.lower(),
        'seq': event.seq,
        'did': getattr(event, 'repo', None) or getattr(event, 'did', None),
        'rev': getattr(event, 'rev', None),
        'active': getattr(event, 'active', None),
        'status': getattr(event, 'status', None),
    }
    print(json.dumps(line), flush=True)


client.start(on_message, lambda error: print('error', repr(error), file=sys.stderr, flush=True))
