-- What the host machine remembers over a restart.
ALTER TABLE host ADD COLUMN did TEXT;
-- When the status ends by itself (a quarantine); NULL: never.
ALTER TABLE host ADD COLUMN status_until INTEGER;
ALTER TABLE host ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN next_attempt_at INTEGER;
ALTER TABLE host ADD COLUMN quarantine_count INTEGER NOT NULL DEFAULT 0;
-- Well-formed events since the host was last found at fault.
ALTER TABLE host ADD COLUMN well_formed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE host ADD COLUMN strictness_since INTEGER;
-- No event of the host above its last_seq stands in the log at or below this number.
ALTER TABLE host ADD COLUMN log_floor INTEGER NOT NULL DEFAULT 0;

ALTER TABLE account ADD COLUMN created_at INTEGER NOT NULL DEFAULT 0;
-- What consumers were last told of the account, coded as upstream; NULL: nothing yet.
ALTER TABLE account ADD COLUMN announced INTEGER;
-- Accounts above their host's limit, oldest first.
CREATE INDEX account_throttled ON account (host_id, id) WHERE local = 2;

-- Documents of DIDs that have no account here yet, taken from an export of the directory.
CREATE TABLE directory (
    did         TEXT    PRIMARY KEY,
    key         BLOB,
    pds         TEXT,
    pds_tls     INTEGER NOT NULL DEFAULT 1,
    handle      TEXT,
    fetched_at  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE audit (
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    -- Who: which key, or which part of the relay itself.
    actor       TEXT    NOT NULL,
    remote      TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL
);

CREATE TABLE trusted_domain (
    domain      TEXT    PRIMARY KEY,
    created_at  INTEGER NOT NULL
) WITHOUT ROWID;

-- Changes not yet passed on to a sibling relay, in order.
CREATE TABLE sibling_queue (
    id          INTEGER PRIMARY KEY,
    sibling     TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    via         TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT
);
CREATE INDEX sibling_queue_order ON sibling_queue (sibling, id);

CREATE TABLE sibling_state (
    sibling       TEXT    PRIMARY KEY,
    delivered     INTEGER NOT NULL DEFAULT 0,
    refused       INTEGER NOT NULL DEFAULT 0,
    last_ok_at    INTEGER,
    last_error    TEXT,
    last_error_at INTEGER
) WITHOUT ROWID;

-- The last change of each relay where changes began that was taken.
CREATE TABLE sibling_origin (
    origin        INTEGER PRIMARY KEY,
    number        INTEGER NOT NULL
);

-- Collections in which accounts have made records since the relay has known them.
CREATE TABLE collection_name (
    id          INTEGER PRIMARY KEY,
    nsid        TEXT    NOT NULL UNIQUE
);
CREATE TABLE collection (
    name_id     INTEGER NOT NULL,
    account_id  INTEGER NOT NULL,
    PRIMARY KEY (name_id, account_id)
) WITHOUT ROWID;

-- Relays whose hosts are looked through again and again.
CREATE TABLE discovery (
    relay         TEXT    PRIMARY KEY,
    last_at       INTEGER NOT NULL,
    hosts_seen    INTEGER NOT NULL DEFAULT 0,
    hosts_added   INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT
) WITHOUT ROWID;

-- Hosts that were refused, and are not tried again before a time.
CREATE TABLE refused_host (
    hostname    TEXT    PRIMARY KEY,
    reason      TEXT    NOT NULL,
    refused_at  INTEGER NOT NULL,
    retry_at    INTEGER NOT NULL,
    times       INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;
