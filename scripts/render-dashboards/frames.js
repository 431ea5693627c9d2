// Prometheus responses as Grafana data frames.
import { applyFieldOverrides, createDataFrame, FieldType, transformDataFrame } from '@grafana/data';
import { lastValueFrom } from 'rxjs';

import { registry } from './fields';

export async function framesOf(panel, theme) {
  let frames = panel.results.flatMap((answer) => framesOfAnswer(answer, panel.results.length > 1));
  if (panel.transformations?.length) {
    frames = await lastValueFrom(transformDataFrame(panel.transformations, frames, { interpolate: (text) => text }));
  }
  return applyFieldOverrides({
    data: frames,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
}

function framesOfAnswer({ target, step, result }, several) {
  if (target.format === 'table') {
    return result.length === 0 ? [] : [tableFrame(target, result, several)];
  }
  return result.map((series) => {
    const samples = series.values ? withGaps(series.values, step) : [series.value];
    return createDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: samples.map(([time]) => time * 1000), config: { interval: step * 1000 } },
        {
          name: 'Value',
          type: FieldType.number,
          labels: series.metric,
          values: samples.map(([, value]) => (value === null ? null : Number(value))),
          config: { displayNameFromDS: legend(target.legendFormat, series.metric) },
        },
      ],
    });
  });
}

function tableFrame(target, result, several) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        values: result.map(({ metric }) => metric[label] ?? ''),
        config: { filterable: true },
      })),
      {
        name: several ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        values: result.map(({ value }) => Number(value[1])),
      },
    ],
  });
}

function legend(format, labels) {
  return format ? format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '') : undefined;
}

// Where Prometheus has no sample, Grafana shows a gap.
function withGaps(samples, step) {
  const values = new Map(samples);
  const first = samples[0][0];
  const count = Math.round((samples.at(-1)[0] - first) / step) + 1;
  return Array.from({ length: count }, (_, index) => {
    const time = first + index * step;
    return [time, values.get(time) ?? null];
  });
}
