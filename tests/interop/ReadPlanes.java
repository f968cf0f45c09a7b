// Reads files as Bio-Formats shows them: java -cp JAR ReadPlanes.java OUT_FOLDER FILE...
// For each file and resolution it writes INDEX-RESOLUTION.rgb (rows of interleaved 8-bit RGB) and
// prints: index, resolution, width, height, channels, um per px, or index and the error.
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import loci.formats.ImageReader;
import loci.formats.MetadataTools;
import loci.formats.meta.IMetadata;

public class ReadPlanes {
  public static void main(String[] arguments) throws Exception {
    loci.common.DebugTools.setRootLevel("OFF");
    for (int i = 1; i < arguments.length; i++) {
      try (ImageReader reader = new ImageReader()) {
        IMetadata metadata = MetadataTools.createOMEXMLMetadata();
        reader.setMetadataStore(metadata);
        reader.setFlattenedResolutions(false);
        reader.setId(arguments[i]);
        for (int level = 0; level < reader.getResolutionCount(); level++) {
          reader.setResolution(level);
          int width = reader.getSizeX(), height = reader.getSizeY(), channels = reader.getSizeC();
          int samples = reader.getRGBChannelCount();
          byte[] rgb = new byte[width * height * channels];
          for (int plane = 0; plane < channels / samples; plane++) {
            byte[] part = reader.openBytes(plane);
            boolean apart = !reader.isInterleaved();
            for (int p = 0; p < width * height; p++)
              for (int c = 0; c < samples; c++)
                rgb[p * channels + plane * samples + c] =
                    part[apart ? c * width * height + p : p * samples + c];
          }
          Files.write(Path.of(arguments[0], (i - 1) + "-" + level + ".rgb"), rgb);
          Object size = metadata.getPixelsPhysicalSizeX(0) == null ? "nan"
              : metadata.getPixelsPhysicalSizeX(0).value(ome.units.UNITS.MICROMETER);
          System.out.println((i - 1) + "\t" + level + "\t" + width + "\t" + height + "\t" + channels + "\t" + size);
        }
      } catch (Exception error) {
        System.out.println((i - 1) + "\terror\t" + error);
      }
    }
  }
}
