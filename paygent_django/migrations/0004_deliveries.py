"""Whom a delivery names and how long it is remembered; and addresses that let us wait are left alone for a while."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("paygent_django", "0003_tuned")]
    operations = [
        migrations.AddField(
            model_name="webhookdelivery",
            name="user",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="paygent_django.enduser",
            ),
        ),
        migrations.AddField(
            model_name="webhookdelivery",
            name="period_end_us",
            field=models.BigIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="paused_until_us",
            field=models.BigIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="timeouts",
            field=models.PositiveSmallIntegerField(default=0, editable=False),
        ),
    ]
