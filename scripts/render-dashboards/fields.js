// Grafana's standard field options, without the editors that belong to Grafana's server side bundle.
import {
  FieldConfigOptionsRegistry,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
} from '@grafana/data';

const STANDARD = ['unit', 'decimals', 'min', 'max', 'displayName', 'noValue', 'color', 'mappings', 'thresholds', 'links'];
// Grafana omits unregistered options.
const CUSTOM = [
  ...['align', 'cellOptions', 'filterable', 'hidden', 'inspect', 'width'],
  ...['axisBorderShow', 'axisCenteredZero', 'axisColorMode', 'axisLabel', 'axisPlacement', 'axisSoftMax', 'axisSoftMin'],
  ...['barAlignment', 'drawStyle', 'fillOpacity', 'gradientMode', 'hideFrom', 'insertNulls', 'lineInterpolation'],
  ...['lineStyle', 'lineWidth', 'pointSize', 'scaleDistribution', 'showPoints', 'spanNulls', 'stacking'],
  ...['thresholdsStyle'],
];

const option = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path,
  isCustom,
  name: path,
  editor: () => null,
  override: () => null,
  process: (value) => value,
  shouldApply: () => true,
  settings: {},
});

export const registry = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((path) => option(path, false)),
  ...CUSTOM.map((path) => option(path, true)),
]);

standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((path) => option(path, false)));
// Some transformers have two names.
const transformers = new Map(Object.values(standardTransformers).map((transformer) => [transformer.id, transformer]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((transformer) => ({
    id: transformer.id,
    name: transformer.name,
    transformation: async () => transformer,
  }))
);
