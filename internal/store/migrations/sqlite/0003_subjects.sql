-- What pod or device a private proof rests on, and the pod that an order came from.
ALTER TABLE authorizations ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE authorizations ADD COLUMN bound_to TEXT NOT NULL DEFAULT '';
