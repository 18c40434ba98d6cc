-- Accounts on which the relay has said something that may not have become an event yet.
CREATE TABLE owed (
    account_id  BIGINT PRIMARY KEY
);
