"""With PostgreSQL the database itself forbids subscriptions of one user that overlap."""

from django.db import migrations

# Both as ranges, which need no extension to be indexed; the bounds are "from" and "below".
FORBID = """
ALTER TABLE paygent_subscription ADD CONSTRAINT paygent_subscription_overlap EXCLUDE USING gist (
    int8range(user_id, user_id, '[]') WITH &&, int8range(starts_us, ends_us) WITH &&
)
"""
ALLOW = "ALTER TABLE paygent_subscription DROP CONSTRAINT paygent_subscription_overlap"


def forbid(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(FORBID)


def allow(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(ALLOW)


class Migration(migrations.Migration):
    dependencies = [("paygent_django", "0001_initial")]
    operations = [migrations.RunPython(forbid, allow)]
