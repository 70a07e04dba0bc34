"""
Cheaper writes and searches, and the names of pages in the admin.

PostgreSQL alone is told to leave room in pages whose rows are updated all the time: an update that stays on its
page writes no index. And it finds users by the beginning of an id or an e-mail address through indexes.
"""

from django.db import migrations, models

FILLFACTORS = {"paygent_total": 50, "paygent_lease": 50, "paygent_userusage": 80, "paygent_enduser": 80}
# The admin's search asks for LIKE 'x%' and UPPER(email) LIKE UPPER('x%').
INDEXES = {
    "paygent_enduser_id_like": "paygent_enduser (project_id, external_user_id varchar_pattern_ops)",
    "paygent_enduser_email_like": "paygent_enduser (project_id, UPPER(email) text_pattern_ops)",
    # The page of an event asks whether it was refunded; hardly any row corrects another.
    "paygent_event_corrects": "paygent_event (project_id, corrects) WHERE corrects IS NOT NULL",
}


def tune(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for table, percent in FILLFACTORS.items():
            schema_editor.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")
        for name, columns in INDEXES.items():
            schema_editor.execute(f"CREATE INDEX {name} ON {columns}")


def leave(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        for name in INDEXES:
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}")
        for table in FILLFACTORS:
            schema_editor.execute(f"ALTER TABLE {table} RESET (fillfactor)")


class Migration(migrations.Migration):
    dependencies = [("paygent_django", "0002_no_overlaps")]
    operations = [
        migrations.AlterModelOptions(name="apikey", options={"verbose_name": "API key"}),
        migrations.AlterModelOptions(name="dailyusage", options={"verbose_name_plural": "overview"}),
        migrations.AlterModelOptions(name="enduser", options={"verbose_name": "user"}),
        migrations.AlterModelOptions(name="gateevent", options={"verbose_name": "decision"}),
        migrations.AlterModelOptions(name="usageevent", options={"verbose_name": "event"}),
        migrations.AlterModelOptions(name="webhookendpoint", options={"verbose_name": "webhook"}),
        migrations.RemoveIndex(model_name="userusage", name="paygent_userusage_top"),
        migrations.AddIndex(
            model_name="userusage",
            index=models.Index(fields=["project", "starts", "grain"], name="paygent_userusage_span"),
        ),
        migrations.AddIndex(
            model_name="enduser", index=models.Index(fields=["auth_user_id"], name="paygent_enduser_auth")
        ),
        migrations.RunPython(tune, leave),
    ]
